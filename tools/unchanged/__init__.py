"""`make unchanged`: does the working tree compute what a commit does, bit by bit?"""
