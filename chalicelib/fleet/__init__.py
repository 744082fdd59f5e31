"""From a query to servers: which sources it means, and where each list comes from."""
