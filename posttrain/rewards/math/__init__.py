"""The reward for mathematics: is the final answer the reference answer?"""
