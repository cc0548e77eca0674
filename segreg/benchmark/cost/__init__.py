"""What a network costs: parameters, operations, speed and memory, with random weights on random images."""
