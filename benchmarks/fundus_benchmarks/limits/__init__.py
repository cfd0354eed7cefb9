"""What a machine reaches at best, and the work of every stage."""
