// SPDX-License-Identifier: GPL-2.0-only
/*
 * registers SECONDS: processes fill all vector registers with bytes of
 * their own, give up the CPU, and look whether the bytes are still there.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROCESSES 6
#define ALL "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"

typedef uint8_t registers[16][32] __attribute__((aligned(32)));

/* Nothing but the system call stands between the loads and the stores. */
__attribute__((target("avx")))
static void yield_with(registers *in, registers *out, long call, long arg)
{
	struct timespec nap = { 0, 1000 };

	__asm__ volatile(".irp n, " ALL "\n\t"
		"vmovdqa 32*\\n(%[in]), %%ymm\\n\n\t"
		".endr\n\t"
		"syscall\n\t"
		".irp n, " ALL "\n\t"
		"vmovdqa %%ymm\\n, 32*\\n(%[out])\n\t"
		".endr\n\t"
		"vzeroupper"
		: "+a" (call)
		: [in] "r" (in), [out] "r" (out), "D" (arg ? &nap : NULL),
		  "S" (0L)
		: "rcx", "r11", "memory",
		  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
		  "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
		  "xmm14", "xmm15");
}

/* Counts its rounds. */
static int child(unsigned int seed, time_t end, uint64_t *rounds)
{
	registers in, out;

	srand(seed);
	do {
		for (size_t i = 0; i < sizeof(in); i++)
			((uint8_t *)in)[i] = rand();
		for (int i = 0; i < 20; i++) {
			memset(out, 0, sizeof(out));
			/* Now and then a nap: the vCPU itself is given up. */
			yield_with(&in, &out, i == 19 ? SYS_nanosleep : SYS_sched_yield, i == 19);
			if (memcmp(in, out, sizeof(in))) {
				printf("process %u: vector registers changed in round %llu\n",
				       seed, (unsigned long long)*rounds);
				return 1;
			}
			++*rounds;
		}
	} while (time(NULL) < end);
	return 0;
}

int main(int argc, char **argv)
{
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 5);
	uint64_t total = 0, *rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, status, bad = 0;

	if (!__builtin_cpu_supports("avx")) {
		puts("no AVX here");
		return 77;
	}
	if (rounds == MAP_FAILED)
		return 2;
	for (i = 0; i < PROCESSES; i++)
		if (!fork())
			return child(i + 1, end, &rounds[i]);
	while (wait(&status) > 0)
		bad |= status;
	for (i = 0; i < PROCESSES; i++)
		total += rounds[i];
	printf("switches=%llu\n", (unsigned long long)total);
	return bad ? 1 : 0;
}
