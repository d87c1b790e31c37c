"""Raw numbers on images, whoever made them."""
