require "test_helper"

class BooksControllerTest < ActionDispatch::IntegrationTest
  test "everybody sees the list" do
    get books_url
    assert_response :success
    assert_select "li", Book.recent.count
  end

  test "strangers add nothing" do
    assert_no_difference("Book.count") do
      post books_url, params: { book: { title: "New" } }
    end
    assert_redirected_to new_session_url
  end

  test "a member adds a book" do
    sign_in members(:ada)
    assert_difference("Book.count", 1) do
      post books_url, params: { book: { title: "Maps", isbn: "9780306406157", copies: 1 } }
    end
    assert_redirected_to book_url(Book.last)
    assert_equal "The book is on the shelf.", flash[:notice]
  end

  test "an isbn that does not add up is shown again" do
    sign_in members(:ada)
    post books_url, params: { book: { title: "Maps", isbn: "9780306406150", copies: 1 } }
    assert_response :unprocessable_entity
    assert_match "does not add up", response.body
  end
end
