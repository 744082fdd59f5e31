"""What adapters stand on: one call to a party, its limits, its pages, its answers and its failures."""
