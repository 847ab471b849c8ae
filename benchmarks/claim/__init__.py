"""`make claim`: does DCI answer easy-vqa better than one layer's features?"""
