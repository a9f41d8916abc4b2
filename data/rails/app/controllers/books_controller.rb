class BooksController < ApplicationController
  before_action :require_member, except: %i[index show search]
  before_action :set_book, only: %i[show edit update destroy reserve]

  # GET /books
  def index
    @books = Book.recent.includes(:reviews)
  end

  # GET /books/search?words=...
  def search
    @books = Book.matching(params[:words]).order(:title)
    render :index
  end

  # GET /books/1
  def show
    respond_to do |format|
      format.html
      format.json { render json: @book }
    end
  end

  def new
    @book = Book.new
  end

  # POST /books
  def create
    @book = Book.new(book_params)
    if @book.save
      redirect_to @book, notice: "The book is on the shelf."
    else
      render :new, status: :unprocessable_entity
    end
  end

  # PATCH /books/1
  def update
    if @book.update(book_params)
      redirect_to @book, notice: "The book was updated.", status: :see_other
    else
      render :edit, status: :unprocessable_entity
    end
  end

  # DELETE /books/1
  def destroy
    @book.destroy!
    redirect_to books_path, notice: "The book was given away.", status: :see_other
  end

  # POST /books/1/reserve
  def reserve
    loan = current_member.loans.build(book: @book)
    if loan.save
      redirect_to @book, notice: "Yours until #{l(loan.due_on)}."
    else
      redirect_to @book, alert: loan.errors.full_messages.to_sentence
    end
  end

  private

  def set_book
    @book = Book.find(params[:id])
  end

  def book_params
    params.require(:book).permit(:title, :isbn, :author, :blurb, :copies, :price, :published_on)
  end
end
