"""A set of pictures as one page, for whoever curates it: how complex they are, and what is wrong with some."""
