"""What images of the target, their labels and class names say: transferability scores.

In all of them ``features`` are (n, D) image embeddings of any scale, ``labels`` (n,) classes 0..K-1 of the same images,
``text_features`` (K, D) class weights of unit norm and ``cosine`` (n, K) cosines of images and classes. Higher scores
are better; NaN says that the images are too few to say anything.
"""
