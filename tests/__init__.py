"""Tests of privkernels; the folders mirror the package."""
