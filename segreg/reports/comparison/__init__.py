"""What the page of a comparison is made of: a file for each thing that it shows, and one for what they share."""

from segreg.reports.comparison.files import write_comparison as write_comparison
