"""Initial values of published recipes, a module for each family: what is drawn how depends on its parameters."""
