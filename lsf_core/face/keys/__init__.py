"""Shape keys that a mesh has already: what their names mean (`names`), and weights for them (`solve`).

This file imports nothing: `names` is loaded by Blender's side as well, which has no scipy and no torch.
"""
