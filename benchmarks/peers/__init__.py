"""Attacks of other libraries on targets of ours: the parts of benchmarks/attack_peers.py."""
