# SPDX-License-Identifier: GPL-2.0-only
#
# Draws what scripts/bench has measured: reads medians.tsv in the current
# directory, writes cycle.svg and request.svg there.

# Columns: 3 pages; 5, 6, 7 instructions, those in the kernel, those in Xen.
data(kernel, row) = sprintf("< awk '$1 == \"%s\" && $2 == \"%s\" && $4 == \"foreign\"' medians.tsv", kernel, row)

set terminal svg size 800,480 dynamic background "white"
set logscale x 2
set xlabel "pages"
set ylabel "instructions per page"
set grid ytics
set key outside below

set output "cycle.svg"
set title "The life of a map of a guest's pages"
set logscale y
set yrange [500:*]
plot data("stock", "cycle") using 3:($5 / $3) with linespoints lw 2 lc rgb "#888888" title "stock", \
	data("series", "cycle") using 3:($5 / $3) with linespoints lw 2 lc rgb "#0060a0" title "series", \
	data("stock", "cycle") using 3:($6 / $3) with linespoints dt 2 lc rgb "#888888" title "of these in the kernel, stock", \
	data("series", "cycle") using 3:($6 / $3) with linespoints dt 2 lc rgb "#0060a0" title "in the kernel, series", \
	data("series", "cycle") using 3:($7 / $3) with lines dt 3 lc rgb "#a04000" title "in Xen, series"

set output "request.svg"
set title "A backend writes a guest's pages to a RAM disk"
unset logscale y
set yrange [0:*]
set xtics (1, 11, 32)
plot data("stock", "request-mapped") using 3:($5 / $3) with linespoints dt 2 lc rgb "#888888" title "map, write, unmap: stock", \
	data("series", "request-mapped") using 3:($5 / $3) with linespoints lw 2 lc rgb "#0060a0" title "map, write, unmap: series", \
	data("series", "request-copied") using 3:($5 / $3) with linespoints lw 2 lc rgb "#a04000" title "copy, write", \
	data("stock", "request-stays-mapped") using 3:($5 / $3) with linespoints dt 2 lc rgb "#40a040" title "write what stays mapped: stock", \
	data("series", "request-stays-mapped") using 3:($5 / $3) with linespoints lw 2 lc rgb "#40a040" title "write what stays mapped: series", \
	data("series", "request-registered") using 3:($5 / $3) with linespoints lw 2 lc rgb "#6020a0" title "register, write, unregister", \
	data("series", "request-stays-registered") using 3:($5 / $3) with linespoints dt 2 lc rgb "#6020a0" title "write what stays registered"
