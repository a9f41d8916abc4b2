class Member < ApplicationRecord
  has_secure_password
  has_many :loans, dependent: :destroy
  has_many :books, through: :loans

  enum :role, { reader: 0, librarian: 1 }

  validates :name, presence: true
  validates :email, presence: true, uniqueness: { case_sensitive: false },
                    format: { with: URI::MailTo::EMAIL_REGEXP }

  before_save { email.downcase! }

  def fines
    loans.overdue.includes(:book).sum(&:fine)
  end
end
