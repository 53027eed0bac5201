"""Pick and fine-tune the best pretrained vision-language model for a folder of images."""
