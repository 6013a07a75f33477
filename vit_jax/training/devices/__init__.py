"""The step on devices: meshes, processes, what chips can do."""
