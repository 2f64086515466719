import { Box, Code, Table, Text } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { probability } from "../lib/format";
import type { Token } from "../lib/logprobs";

const MOST_ROWS = 300;

/** Each token with its probability and what else was likely; closed until it is asked for. */
export function TokenTable({ tokens }: { tokens: readonly Token[] }) {
  const { t } = useTranslation();
  const [opened, setOpened] = useState(false);
  return (
    <Box component="details" onToggle={(event) => setOpened(event.currentTarget.open)}>
      <Text component="summary" size="sm" c="dimmed" style={{ cursor: "pointer" }}>
        {t("play.logprobs")}
      </Text>
      {opened && (
        <>
          <Table.ScrollContainer type="native" minWidth={0} maxHeight="24rem" tabIndex={0}>
            <Table
              fz="xs"
              verticalSpacing={2}
              horizontalSpacing={6}
              stickyHeader
              aria-label={t("play.logprobs")}
            >
              <Table.Thead>
                <Table.Tr>
                  <Table.Th pl={0} w="1%">
                    {t("play.token")}
                  </Table.Th>
                  <Table.Th w="1%">{t("play.probability")}</Table.Th>
                  <Table.Th>{t("play.others")}</Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {tokens.slice(0, MOST_ROWS).map((token, at) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: tokens are only added at the end
                  <Table.Tr key={at}>
                    <Table.Td pl={0}>
                      <Written text={token.text} />
                    </Table.Td>
                    <Table.Td style={{ whiteSpace: "nowrap" }}>
                      {probability(token.logprob)}
                    </Table.Td>
                    <Table.Td>
                      {token.others.map((one) => (
                        <span
                          key={`${one.logprob} ${one.text}`}
                          style={{
                            display: "inline-block",
                            whiteSpace: "nowrap",
                            marginInlineEnd: 10,
                          }}
                        >
                          <Written text={one.text} />{" "}
                          <Text span size="xs" c="dimmed">
                            {probability(one.logprob)}
                          </Text>
                        </span>
                      ))}
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
          {tokens.length > MOST_ROWS && (
            <Text size="xs" c="dimmed">
              {t("play.firstTokens", { shown: MOST_ROWS, all: tokens.length })}
            </Text>
          )}
        </>
      )}
    </Box>
  );
}

/** A token in quotes: most begin with a blank, and some are nothing else. */
function Written({ text }: { text: string }) {
  return <Code style={{ whiteSpace: "pre" }}>{JSON.stringify(text)}</Code>;
}
