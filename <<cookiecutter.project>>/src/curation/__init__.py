"""New pictures: a batch is compared, doubted, reviewed by a person, and added to the data set."""
