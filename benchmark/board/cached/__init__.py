"""What the commands of the board read and build per row, stored in the user's cache folder."""
