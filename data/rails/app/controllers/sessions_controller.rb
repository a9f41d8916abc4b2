class SessionsController < ApplicationController
  def create
    member = Member.find_by(email: params[:email].to_s.downcase)
    if member&.authenticate(params[:password])
      reset_session
      session[:member_id] = member.id
      redirect_to root_path, notice: "Welcome back, #{member.name}."
    else
      flash.now[:alert] = "The address and the password do not go together."
      render :new, status: :unprocessable_entity
    end
  end

  def destroy
    reset_session
    redirect_to root_path, status: :see_other
  end
end
