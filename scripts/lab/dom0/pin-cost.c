// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it costs to do direct I/O on granted pages, beside ordinary memory.
 *
 *   pin-cost PAGES-PER-PIN DISK DOMID REF...
 *
 * Pins the pages by the kernel's own gup_test, PAGES-PER-PIN at a time, and
 * writes them to DISK with O_DIRECT, 4 KiB at a time; the same with as many
 * pages of anonymous memory; several rounds of each, alternating. Under
 * "dom0-run --icount" a nanosecond of the clock is an instruction. Prints the
 * medians.
 *
 * gup_test tells microseconds, so that one call of it covers all the pages, in
 * batches, and thereby loses less than one thousandth.
 */
#include "measure.h"

#define ROUNDS 7

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *samples)
{
	qsort(samples, ROUNDS, sizeof(*samples), by_value);
	return samples[ROUNDS / 2];
}

static double cost_of_pin(int gup, void *addr, __u32 pages, __u32 batch)
{
	struct gup_test t = {
		.addr = (uintptr_t)addr,
		.size = pages * PAGE,
		.nr_pages_per_call = batch,
		.gup_flags = FOLL_WRITE,
	};

	if (ioctl(gup, PIN_FAST_BENCHMARK, &t))
		err(1, "PIN_FAST_BENCHMARK");
	if (t.size != pages * PAGE)
		errx(1, "gup_test pinned %llu bytes of %lu", t.size, pages * PAGE);
	return t.get_delta_usec * 1000.0 / (pages / batch);
}

static double cost_of_write(int disk, char *addr, __u32 pages)
{
	__u64 start = now();

	for (__u32 i = 0; i < pages; i++)
		if (pwrite(disk, addr + i * PAGE, PAGE, i * PAGE) != (ssize_t)PAGE)
			err(1, "write of page %u", i);
	return (double)(now() - start) / pages;
}

int main(int argc, char **argv)
{
	double pin[2][ROUNDS], wr[2][ROUNDS];
	char *memory[2];
	struct grants g;
	__u32 batch;
	int gup, disk;

	if (argc < 5)
		errx(2, "usage: pin-cost PAGES-PER-PIN DISK DOMID REF...");
	batch = parse_u32("PAGES-PER-PIN", argv[1]);
	g = parse_grants(argv + 3);
	if (!batch || g.count % batch)
		errx(2, "%u pages are not a multiple of %u", g.count, batch);
	gup = gup_open();
	disk = open(argv[2], O_RDWR | O_DIRECT);
	if (disk < 0)
		err(1, "%s", argv[2]);

	memory[0] = anonymous_pages(g.count);
	memset(memory[0], 1, g.count * PAGE);
	memory[1] = grants_map(gntdev_open(), &g, 0, g.count, PROT_READ | PROT_WRITE);

	/* The first round fills brd's pages and what the kernel sets up at first use. */
	for (int i = 0; i < 2; i++) {
		cost_of_pin(gup, memory[i], g.count, batch);
		cost_of_write(disk, memory[i], g.count);
	}
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 2; i++) {
			pin[i][round] = cost_of_pin(gup, memory[i], g.count, batch);
			wr[i][round] = cost_of_write(disk, memory[i], g.count);
		}
	}
	printf("pin_pages=%u pin_anon=%.0f pin_granted=%.0f", batch, median(pin[0]),
	       median(pin[1]));
	printf(" write_anon=%.0f write_granted=%.0f\n", median(wr[0]), median(wr[1]));
	return 0;
}
