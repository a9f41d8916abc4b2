require "test_helper"

class LoanTest < ActiveSupport::TestCase
  setup do
    @loan = loans(:running)
  end

  test "a loan of today is due in three weeks" do
    loan = Loan.create!(book: books(:atlas), member: members(:ada))
    assert_equal 21.days.from_now.to_date, loan.due_on
    assert_not loan.overdue?
  end

  test "nobody pays before the day" do
    @loan.due_on = Date.current
    assert_equal 0, @loan.fine
  end

  test "each day late costs twenty cents" do
    @loan.due_on = 5.days.ago.to_date
    assert_in_delta 1.0, @loan.fine, 0.001
    assert_predicate @loan, :overdue?
  end

  test "a book that is lent out cannot be lent again" do
    loan = Loan.new(book: @loan.book, member: members(:ada))
    assert_not loan.valid?
    assert_includes loan.errors[:book], "is lent out"
  end

  test "returning touches the book" do
    assert_changes -> { @loan.book.reload.updated_at } do
      @loan.return!
    end
    assert_nil Loan.overdue.find_by(id: @loan.id)
  end
end
