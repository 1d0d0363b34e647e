// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's side of "$DOMU ..." (see dom0-run --help): grants pages to
 * dom0, tells what they hold, takes them back, runs programs.
 *
 * A request is words, each ended by a NUL; the answer is the exit status of
 * "$DOMU", or "E", on the first line, and the output after it. Programs run
 * in a child which answers by itself, so that they may take their time
 * while pages are granted and hashed.
 *
 * Every page is mapped by a VMA of its own, and by nothing else holds its
 * grant (gntalloc takes back what neither the file nor a VMA holds), so that
 * munmap() of one page ends one grant.
 */
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <xen/gntalloc.h>
#include "domu-message.h"

#define PAGE	4096UL
#define DATA	"data"

/* By reference; NULL: not granted. */
static void **grants;
static size_t nr_grants;

static uint64_t rnd[2];

static uint64_t random64(void)
{
	uint64_t a = rnd[0], b = rnd[1];

	rnd[0] = b;
	a ^= a << 23;
	rnd[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
	return rnd[1] + b;
}

static void say(struct message *out, const char *text)
{
	message_add(out, text, strlen(text));
}

static void fail(struct message *out, const char *what, const char *why)
{
	out->len = 0;
	say(out, "E\n");
	say(out, what);
	say(out, ": ");
	say(out, why);
	say(out, "\n");
}

static void **find_grant(const char *word)
{
	char *end;
	unsigned long ref = strtoul(word, &end, 0);

	if (!*word || *end || ref >= nr_grants || !grants[ref])
		return NULL;
	return &grants[ref];
}

static void remember(unsigned int ref, void *page)
{
	if (ref >= nr_grants) {
		grants = realloc(grants, (ref + 1) * sizeof(*grants));
		if (!grants)
			abort();
		memset(grants + nr_grants, 0,
		       (ref + 1 - nr_grants) * sizeof(*grants));
		nr_grants = ref + 1;
	}
	grants[ref] = page;
}

static void do_grant(struct message *out, char **word, int words)
{
	struct ioctl_gntalloc_dealloc_gref dealloc;
	struct ioctl_gntalloc_alloc_gref *op;
	unsigned long n, i, j;
	char text[16];
	int fd;

	n = words > 0 ? strtoul(word[0], NULL, 0) : 0;
	if (!n || (words > 1 && strcmp(word[1], "ro"))) {
		fail(out, "grant", "usage: grant N [ro]");
		return;
	}

	fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	op = calloc(1, sizeof(*op) + n * sizeof(op->gref_ids[0]));
	if (fd < 0 || !op) {
		fail(out, "/dev/xen/gntalloc", strerror(errno));
		goto out;
	}
	op->count = n;
	op->flags = words > 1 ? 0 : GNTALLOC_FLAG_WRITABLE;
	if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, op)) {
		fail(out, "grant", strerror(errno));
		goto out;
	}

	say(out, "0\n");
	for (i = 0; i < n; i++) {
		uint64_t *bytes;

		bytes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			     fd, op->index + i * PAGE);
		if (bytes == MAP_FAILED) {
			fail(out, "mmap of a granted page", strerror(errno));
			break;
		}
		for (j = 0; j < PAGE / sizeof(*bytes); j++)
			bytes[j] = random64();
		/* A long "run" must not hold what is released meanwhile. */
		madvise(bytes, PAGE, MADV_DONTFORK);
		remember(op->gref_ids[i], bytes);
		snprintf(text, sizeof(text), "%s%u", i ? " " : "",
			 op->gref_ids[i]);
		say(out, text);
	}
	say(out, "\n");

	dealloc.index = op->index;
	dealloc.count = n;
	if (ioctl(fd, IOCTL_GNTALLOC_DEALLOC_GREF, &dealloc))
		fail(out, "gntalloc", strerror(errno));
out:
	free(op);
	if (fd >= 0)
		close(fd);
}

static void do_release(struct message *out, char **word, int words)
{
	void **grant;
	int i;

	for (i = 0; i < words; i++)
		if (!find_grant(word[i])) {
			fail(out, word[i], "no grant of this guest");
			return;
		}
	for (i = 0; i < words; i++) {
		grant = find_grant(word[i]);
		if (!grant)
			continue;
		munmap(*grant, PAGE);
		*grant = NULL;
	}
	say(out, "0\n");
}

static void do_sha256(struct message *out, char **word, int words)
{
	int in[2], result[2], i;
	char hash[65] = "";
	size_t done = 0;
	ssize_t n;
	pid_t pid;

	for (i = 0; i < words; i++)
		if (!find_grant(word[i])) {
			fail(out, word[i], "no grant of this guest");
			return;
		}
	if (pipe2(in, O_CLOEXEC) || pipe2(result, O_CLOEXEC)) {
		fail(out, "pipe", strerror(errno));
		return;
	}
	pid = fork();
	if (pid < 0) {
		fail(out, "fork", strerror(errno));
		return;
	}
	if (!pid) {
		dup2(in[0], 0);
		dup2(result[1], 1);
		execl("/bin/busybox", "sha256sum", (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(result[1]);
	for (i = 0; i < words; i++) {
		if (write(in[1], *find_grant(word[i]), PAGE) != PAGE)
			break;
	}
	close(in[1]);
	while (done < 64) {
		n = read(result[0], hash + done, 64 - done);
		if (n <= 0)
			break;
		done += n;
	}
	close(result[0]);
	waitpid(pid, NULL, 0);
	if (i < words || done < 64) {
		fail(out, "sha256", "sha256sum of the guest failed");
		return;
	}
	say(out, "0\n");
	say(out, hash);
	say(out, "\n");
}

static void run_child(const char *slot, char **word)
{
	int output[2], status;
	struct message text = { NULL, 0 }, out = { NULL, 0 };
	struct xs *xs;
	char buf[4096];
	pid_t pid;
	ssize_t n;

	xs = xs_connect();
	if (!xs || pipe2(output, O_CLOEXEC))
		_exit(1);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDONLY);

		dup2(null, 0);
		dup2(output[1], 1);
		dup2(output[1], 2);
		execvp(word[0], word);
		dprintf(2, "%s: %s\n", word[0], strerror(errno));
		_exit(127);
	}
	close(output[1]);
	while ((n = read(output[0], buf, sizeof(buf))) > 0)
		message_add(&text, buf, n);
	waitpid(pid, &status, 0);
	snprintf(buf, sizeof(buf), "%d\n",
		 WIFEXITED(status) ? WEXITSTATUS(status) :
				     128 + WTERMSIG(status));
	say(&out, buf);
	message_add(&out, text.data ? text.data : "", text.len);
	if (message_send(xs, DATA, slot, "rsp", &out)) {
		fail(&out, word[0], "its output does not fit into xenstore");
		message_send(xs, DATA, slot, "rsp", &out);
	}
	_exit(0);
}

static void do_stop(struct xs *xs, const char *slot)
{
	struct message out = { NULL, 0 };

	say(&out, "0\n");
	message_send(xs, DATA, slot, "rsp", &out);
	/* A PV guest without ACPI halts for RB_POWER_OFF, and stays. */
	reboot(RB_AUTOBOOT);
}

static void handle(struct xs *xs, const char *slot)
{
	struct message req, out = { NULL, 0 };
	char path[256], **word;
	int words = 0;
	size_t i, at;
	pid_t pid;

	if (message_receive(xs, DATA, slot, "req", &req))
		return;
	snprintf(path, sizeof(path), DATA "/lab/%.64s/req", slot);
	xs_remove(xs, path);

	for (i = 0; i < req.len; i++)
		words += !req.data[i];
	word = calloc(words + 1, sizeof(*word));
	if (!word)
		abort();
	for (i = at = 0; i < (size_t)words; i++) {
		word[i] = req.data + at;
		at += strlen(word[i]) + 1;
	}

	if (!words) {
		fail(&out, "request", "empty");
	} else if (!strcmp(word[0], "grant")) {
		do_grant(&out, word + 1, words - 1);
	} else if (!strcmp(word[0], "release")) {
		do_release(&out, word + 1, words - 1);
	} else if (!strcmp(word[0], "sha256")) {
		do_sha256(&out, word + 1, words - 1);
	} else if (!strcmp(word[0], "stop")) {
		do_stop(xs, slot);
		fail(&out, "stop", strerror(errno));
	} else if (!strcmp(word[0], "run") && words > 1) {
		/*
		 * Twice, so that init reaps it.
		 */
		pid = fork();
		if (!pid) {
			if (!fork())
				run_child(slot, word + 1);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		goto out;
	} else {
		fail(&out, word[0], "unknown request");
	}
	if (message_send(xs, DATA, slot, "rsp", &out)) {
		fail(&out, word[0], "the answer does not fit into xenstore");
		message_send(xs, DATA, slot, "rsp", &out);
	}
out:
	free(out.data);
	free(req.data);
	free(word);
}

int main(void)
{
	struct xs *xs;
	char path[256], *slot, *end;

	if (getrandom(rnd, sizeof(rnd), GRND_INSECURE) != sizeof(rnd))
		rnd[0] = getpid();
	signal(SIGPIPE, SIG_IGN);

	xs = xs_connect();
	if (!xs || xs_observe(xs, DATA "/lab") ||
	    xs_put(xs, DATA "/lab/ready", "1", 1)) {
		perror("guest-agent: xenstore");
		return 1;
	}
	for (;;) {
		if (xs_event(xs, path, sizeof(path), -1) < 0) {
			perror("guest-agent: xenstore");
			return 1;
		}
		if (strncmp(path, DATA "/lab/", sizeof(DATA "/lab/") - 1))
			continue;
		slot = path + sizeof(DATA "/lab/") - 1;
		end = strchr(slot, '/');
		if (end && !strcmp(end, "/req")) {
			*end = 0;
			handle(xs, slot);
		}
	}
}
