class AddShelfToBooks < ActiveRecord::Migration[7.1]
  def up
    add_column :books, :shelf, :string, limit: 8
    execute "UPDATE books SET shelf = 'A1' WHERE for_children"
    change_column_null :books, :shelf, true
  end

  def down
    remove_column :books, :shelf
  end
end
