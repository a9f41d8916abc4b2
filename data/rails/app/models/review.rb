class Review < ApplicationRecord
  belongs_to :book
  belongs_to :member

  validates :stars, inclusion: { in: 1..5 }
  validates :text, length: { maximum: 2_000 }, allow_blank: true
end
