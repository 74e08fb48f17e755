"""What every Loquat service needs and no domain logic."""
