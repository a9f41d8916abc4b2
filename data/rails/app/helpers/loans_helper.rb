module LoansHelper
  # "3 days left", "due today", "2 days late"
  def due_in_words(loan)
    days = (loan.due_on - Date.current).to_i
    return "due today" if days.zero?

    days.positive? ? "#{pluralize(days, 'day')} left" : "#{pluralize(-days, 'day')} late"
  end

  def stars(number)
    content_tag(:span, "★" * number.round, class: "stars", title: "#{number} of 5")
  end
end
