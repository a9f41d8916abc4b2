class CreateBooks < ActiveRecord::Migration[7.1]
  def change
    create_table :books do |t|
      t.string :title, null: false
      t.string :isbn, null: false
      t.string :author
      t.text :blurb
      t.integer :copies, null: false, default: 1
      t.decimal :price, precision: 8, scale: 2
      t.date :published_on
      t.boolean :for_children, null: false, default: false
      t.timestamps
    end

    add_index :books, :isbn, unique: true
    add_index :books, %i[author title]
  end
end
