/* A program's own handlers of SIGSEGV, SIGILL and SIGBUS get what is theirs, as sigaction(2) says it, and submissions work around and inside them. */
#include "queue.h"
#include <setjmp.h>
#include <ucontext.h>

static void *portal;
static sigjmp_buf back;
static volatile int count, number_seen, code_seen, inside_status;
static void *volatile address_seen;
static volatile int blocked_usr2, blocked_itself;

static void detailed(int number, siginfo_t *info, void *context)
{
	sigset_t now;
	count++;
	number_seen = number;
	code_seen = info->si_code;
	address_seen = info->si_addr;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	blocked_usr2 = sigismember(&now, SIGUSR2);
	inside_status = copies(portal, 1);
	(void)context;
	siglongjmp(back, 1);
}
static void skips_ud2(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info;
	count++;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}
static void plain(int number)
{
	number_seen = number;
	count++;
	siglongjmp(back, 1);
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = detailed, .sa_flags = SA_SIGINFO}, old;
	int how;
	sigaddset(&action.sa_mask, SIGUSR2);
	CHECK(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	portal = portal_at(SHARED);
	CHECK(copies(portal, 1) == 1 && count == 0);
	CHECK(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_sigaction == detailed && old.sa_flags & SA_SIGINFO && sigismember(&old.sa_mask, SIGUSR2));

	if (!sigsetjmp(back, 1))
		*(volatile int *)0x18 = 1;
	CHECK(count == 1 && number_seen == SIGSEGV && code_seen == SEGV_MAPERR && address_seen == (void *)0x18 && inside_status == 1 && blocked_usr2 == 1);
	sigset_t now;
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0 && !sigismember(&now, SIGUSR2));
	char *readonly = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!sigsetjmp(back, 1))
		*(volatile char *)(readonly + 5) = 1;
	CHECK(count == 2 && code_seen == SEGV_ACCERR && address_seen == readonly + 5);
	if (!sigsetjmp(back, 1))
		raise(SIGSEGV);
	CHECK(count == 3 && code_seen <= 0);

	action.sa_sigaction = skips_ud2;
	CHECK(sigaction(SIGILL, &action, NULL) == 0);
	__asm__ volatile("ud2");
	CHECK(count == 4 && copies(portal, 1) == 1);

	/* SA_RESETHAND: once. */
	action.sa_sigaction = detailed;
	action.sa_flags |= (int)SA_RESETHAND;
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	if (!sigsetjmp(back, 1))
		*(volatile int *)0x18 = 1;
	CHECK(count == 5 && sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(copies(portal, 1) == 1);

	CHECK(signal(SIGSEGV, plain) == SIG_DFL);
	if (!sigsetjmp(back, 1))
		*(volatile int *)0x18 = 1;
	CHECK(count == 6 && number_seen == SIGSEGV && signal(SIGSEGV, SIG_DFL) == plain);
	char path[] = "/tmp/siov-own-handlers-XXXXXX";
	int fd = mkstemp(path);
	CHECK(fd >= 0 && unlink(path) == 0);
	char *beyond = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(beyond != MAP_FAILED && signal(SIGBUS, plain) == SIG_DFL);
	if (!sigsetjmp(back, 1))
		(void)*(volatile char *)beyond;
	CHECK(count == 7 && number_seen == SIGBUS);

	/* Defaults and ignored ones end a program as ever. */
	CHILD(how) *(volatile int *)0x18 = 1;
	CHECK(how == -SIGSEGV);
	CHILD(how)
	{
		signal(SIGSEGV, SIG_IGN);
		raise(SIGSEGV);
		CHECK(copies(portal_at(SHARED), 1) == 1);
		*(volatile int *)0x18 = 1;
	}
	CHECK(how == -SIGSEGV);
	CHILD(how) raise(SIGSEGV);
	CHECK(how == -SIGSEGV);
	CHECK(sigaction(SIGILL, &(struct sigaction){.sa_handler = SIG_DFL}, &old) == 0 && old.sa_sigaction == skips_ud2);
	CHILD(how) __asm__ volatile("ud2");
	CHECK(how == -SIGILL);
	CHILD(how) abort();
	CHECK(how == -SIGABRT);
	CHECK(copies(portal, 1) == 1);
	return 0;
}
