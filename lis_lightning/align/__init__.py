"""What a fine-tuning run needs: data, models and the module that trains them."""
