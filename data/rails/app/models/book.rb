# A title of which the library owns one copy or more.
class Book < ApplicationRecord
  has_many :loans, dependent: :destroy
  has_many :reviews, dependent: :destroy
  has_many :borrowers, through: :loans, source: :member

  validates :title, presence: true
  validates :isbn, presence: true, uniqueness: true, length: { in: 10..13 }
  validates :copies, numericality: { only_integer: true, greater_than: 0 }
  validate :isbn_has_a_sound_check_digit

  before_validation :tidy_isbn

  scope :for_children, -> { where(for_children: true) }
  scope :recent, -> { order(published_on: :desc).limit(20) }
  scope :lent_out, -> { joins(:loans).merge(Loan.running).distinct }

  # Finds books by a word in the title or the author's name.
  def self.matching(words)
    return all if words.blank?

    pattern = "%#{sanitize_sql_like(words)}%"
    where("title LIKE :p OR author LIKE :p", p: pattern)
  end

  def available?
    loans.running.count < copies
  end

  def average_stars
    reviews.average(:stars)&.round(1)
  end

  private

  def tidy_isbn
    self.isbn = isbn.to_s.delete("- ")
  end

  def isbn_has_a_sound_check_digit
    return if isbn.to_s.length != 13

    sum = isbn.chars.each_with_index.sum { |digit, place| digit.to_i * (place.even? ? 1 : 3) }
    errors.add(:isbn, "does not add up") unless (sum % 10).zero?
  end
end
