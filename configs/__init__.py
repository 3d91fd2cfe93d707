"""Recipes, one YAML file for each procedure; `xdistil_tf.recipes.find` locates them."""
