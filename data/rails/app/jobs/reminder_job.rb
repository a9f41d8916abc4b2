class ReminderJob < ApplicationJob
  queue_as :default
  retry_on Net::OpenTimeout, wait: 5.minutes, attempts: 3

  def perform(loan)
    return if loan.returned_at?

    LoanMailer.with(loan: loan).due_today.deliver_now
    Rails.logger.info("reminded member #{loan.member_id} of loan #{loan.id}")
  end
end
