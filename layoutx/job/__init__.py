"""What a conversion will do, layer by layer, decided before a weight is read; and doing it."""
