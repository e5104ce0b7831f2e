"""The layout language: text that says where every named number of a tensor lives. Standard library only."""
