class ApplicationController < ActionController::Base
  helper_method :current_member

  rescue_from ActiveRecord::RecordNotFound do
    redirect_to root_path, alert: "There is no such page."
  end

  private

  def current_member
    @current_member ||= Member.find_by(id: session[:member_id])
  end

  def require_member
    redirect_to new_session_path, alert: "Please sign in first." unless current_member
  end

  def require_librarian
    head :forbidden unless current_member&.librarian?
  end
end
