"""What commands share: options and progress."""
