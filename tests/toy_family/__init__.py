"""A second family, as small as one can be: two stages of blocks, and a merging of neighbouring tokens between them.

It stands for any family that comes to the project: what trains, converts or measures it knows nothing of it but what
its folders say.
"""
