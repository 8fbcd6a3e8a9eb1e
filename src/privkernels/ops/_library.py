"""The torch library that all operators are defined in."""

import torch

library = torch.library.Library("privkernels", "DEF")
