"""privkernels: publish trained PyTorch models without publishing their training data."""
