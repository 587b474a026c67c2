/*
 * test_secret.c -- names that look like secrets, and the hash that stands for their values.
 */
#include "harness.h"

#include "base/secret.h"
#include "base/siphash.h"

#include <string.h>

TEST(the_hash_is_siphash_2_4)
{
	/* Appendix A of the paper, and its authors' vectors: key 00..0f, input 00, 01, .. */
	static const struct {
		size_t n;
		uint64_t hash;
	} vectors[] = { { 0, 0x726fdb47dd0e0e31 },
			{ 1, 0x74f839c593dc67fd },
			{ 8, 0x93f5f5799a932462 },
			{ 15, 0xa129ca6149be45e5 } };
	struct siphash_key key;
	uint8_t bytes[16];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)i;
	memcpy(&key, bytes, sizeof key);
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		CHECK_EQ(siphash(&key, bytes, vectors[i].n), vectors[i].hash);
}

TEST(two_keys_are_two_hashes)
{
	struct siphash_key one = siphash_key_make(), other = siphash_key_make();
	CHECK(siphash(&one, "1234", 4) != siphash(&other, "1234", 4));
	CHECK_EQ(siphash(&one, "1234", 4), siphash(&one, "1234", 4));
}

TEST(names_of_secrets)
{
	static const char *const names[] = {
		"APIToken",
		"JWTToken",
		"HTTPAuth",
		"DBPass",
		"PINCode",
		"accesstoken",
		"authtoken",
		"csrftoken",
		"csrfmiddlewaretoken",
		"dbpass",
		"userpass",
		"pincode",
		"privkey",
		"enckey",
		"masterkey",
		"dsn",
		"sentry_dsn",
		"SENTRY_DSN",
		"database_url",
		"DATABASE_URL",
		"databaseUrl",
		"redis_url",
		"conn_str",
		"connection_string",
		"webhook_url",
		"session",
		"session_id",
		"sessionid",
		"sid",
		"jwt",
		"bearer",
		"oauth",
		"oauth_state",
		"passcode",
		"totp",
		"mfa_code",
		"recovery_code",
		"backup_codes",
		"mnemonic",
		"seed_phrase",
		"nonce",
		"hmac",
		"signature",
		"cvv",
		"cvc",
		"ssn",
		"iban",
		"card_number",
		"pw",
		"user_pw",
		"kennwort",
		"mdp",
		"refresh_tok",
		"tkn",
		"authn",
		"authz",
		"pepper",
		"keystore",
		"pem",
		"password",
		"db_password",
		"passwd",
		"API_KEY",
		"apiKey",
		"auth_token",
		"client_secret",
		"clientSecret",
		"credentials",
		"private_key",
		"config.token",
		"user[\"pin\"]",
		"salt",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		CHECK_TEXT(secret_looks_like(names[i]) ? names[i] : "not hidden", names[i]);
}

TEST(names_that_are_none)
{
	static const char *const names[] = {
		"monkey",  "keyboard",  "bypass",  "compass", "passenger",  "passes",       "surpass",
		"author",  "authored",  "pinned",  "spinner", "assault",    "temperature",  "weights",
		"counter", "x",         "",        "_",       "tokenizer",  "cookiecutter", "URL",
		"sidebar", "obsession", "n_words", "signal",  "HTTPServer", "cache",        "possession",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		CHECK_TEXT(secret_looks_like(names[i]) ? "hidden" : names[i], names[i]);
}
