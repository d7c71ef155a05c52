"""The page: tables, pages of rows, and the files of the site."""
