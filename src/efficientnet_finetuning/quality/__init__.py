"""Quality of the data: wrong labels, outliers, shortcuts, weak spots, and the gain from more images."""
