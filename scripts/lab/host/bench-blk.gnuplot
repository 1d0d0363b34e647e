# SPDX-License-Identifier: GPL-2.0-only
#
# Draws what scripts/bench-blk has measured: reads medians.tsv in the current directory,
# writes bench-blk.svg there.

# Columns: 3 pages; 5 instructions.
data(kernel, row, what) = sprintf("< awk '$1 == \"%s\" && $2 == \"%s\" && $4 == \"%s\"' medians.tsv", kernel, row, what)
backends = "map copy persist qdisk-copy qdisk blkback"
colors = "#888888 #a04000 #0060a0 #e0a020 #40a040 #000000"

set terminal svg size 900,520 dynamic background "white"
set output "bench-blk.svg"
set multiplot layout 1,2
set logscale xy
set xrange [3:170]
set xtics (4, 44, 128)
set xlabel "KiB"
set yrange [8000:400000]
set ytics (10000, 20000, 50000, 100000, 200000)
set grid ytics
set key outside below maxcols 3
do for [depth in "1 16"] {
	set title sprintf("instructions for a write, %s at once", depth)
	plot for [i = 1:words(backends)] data("series", word(backends, i), "write-".depth) using ($3 * 4):5 \
		with linespoints lw 2 lc rgb word(colors, i) title word(backends, i), \
		for [i = 1:words(backends)] data("stock", word(backends, i), "write-".depth) using ($3 * 4):5 \
		with lines dt 2 lc rgb word(colors, i) title (i == 1 ? "(dashed: stock)" : "")
}
