"""What is kept between requests: the stores, and the snapshots in them."""
