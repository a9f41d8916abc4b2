# The addresses of a small lending library. Members borrow books; librarians look after both.
Rails.application.routes.draw do
  root "books#index"

  resources :books do
    collection do
      get :search
    end
    member do
      post :reserve
      delete :reserve, action: :cancel_reservation
    end
    resources :reviews, only: %i[create update destroy]
  end

  resources :members, except: :destroy
  resource :session, only: %i[new create destroy]

  namespace :desk do
    root "loans#overdue"
    resources :loans, only: %i[index create] do
      patch :return_book, on: :member
      put :extend, on: :member
    end
  end

  scope "/api", defaults: { format: :json } do
    get "/books/:isbn", to: "catalogue#show", constraints: { isbn: /\d{10,13}/ }
    head "/books/:isbn", to: "catalogue#exists"
    match "/books/:isbn", to: "catalogue#options", via: :options
  end

  get "/opening-hours", to: "pages#hours"
  get "/:year/:month", to: "archive#month", constraints: { year: /\d{4}/, month: /\d{1,2}/ }
end
