# One copy of a book in the hands of one member, until it is returned.
class Loan < ApplicationRecord
  DAYS = 21
  FINE_PER_DAY = 0.2

  belongs_to :book
  belongs_to :member

  validates :due_on, presence: true
  validate :book_is_available, on: :create

  before_create { self.due_on ||= DAYS.days.from_now.to_date }
  after_commit :remind_later, on: :create

  scope :running, -> { where(returned_at: nil) }
  scope :overdue, -> { running.where("due_on < ?", Date.current).order(:due_on) }

  delegate :title, :author, to: :book
  delegate :name, to: :member, prefix: true

  def overdue?
    returned_at.nil? && due_on.past?
  end

  def fine
    overdue? ? (Date.current - due_on).to_i * FINE_PER_DAY : 0
  end

  def return!
    transaction do
      update!(returned_at: Time.current)
      book.touch
    end
  end

  private

  def book_is_available
    errors.add(:book, "is lent out") unless book&.available?
  end

  def remind_later
    ReminderJob.set(wait_until: due_on.beginning_of_day).perform_later(self)
  end
end
