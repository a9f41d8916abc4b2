class CreateMembersAndLoans < ActiveRecord::Migration[7.1]
  def change
    create_table :members do |t|
      t.string :name, null: false
      t.string :email, null: false
      t.string :password_digest
      t.datetime :joined_at
      t.timestamps
    end
    add_index :members, :email, unique: true

    create_table :loans do |t|
      t.references :book, null: false, foreign_key: true
      t.references :member, null: false, foreign_key: true
      t.date :due_on, null: false
      t.datetime :returned_at
      t.timestamps
    end
    add_index :loans, :due_on
  end
end
