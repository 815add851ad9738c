"""Data sets made shard by shard, by any number of processes that know nothing of each other.

A shard's bytes follow from the plan and the shard's number alone, so it may be made anywhere, made
again after a kill, or made twice, and the data set is the same.
"""
